// Texts and bytes. Not every engine has a TextEncoder, and a loop over characters is slow in one without a compiler. So the
// conversion is that of `encodeURIComponent`, which is native, with its escapes taken back by `unescape`.

/** Functions that make bytes of a text of code units below 256 without a loop. */
const HAS_BASE64 = typeof btoa === "function" && typeof Uint8Array.fromBase64 === "function";

/** Arguments that one call takes in every engine. */
const ARGUMENTS = 8192;

/** The UTF-8 of a text. Half of a surrogate pair, which is no character, becomes U+FFFD. */
export function encode(text) {
  const units = isAscii(text) ? text : unescape(encodeURIComponent(text.toWellFormed()));
  if (HAS_BASE64) return Uint8Array.fromBase64(btoa(units));
  const bytes = new Uint8Array(units.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = units.charCodeAt(at);
  return bytes;
}

/** The text of UTF-8. Bytes that are none become U+FFFD. */
export function decode(bytes) {
  const parts = [];
  for (let at = 0; at < bytes.length; at += ARGUMENTS) {
    parts.push(String.fromCharCode.apply(null, bytes.subarray(at, at + ARGUMENTS)));
  }
  const units = parts.join("");
  if (isAscii(units)) return units;
  try {
    return decodeURIComponent(escape(units));
  } catch {
    return replaced(bytes);
  }
}

const isAscii = (text) => !/[^\0-\x7f]/.test(text);

/** The text of bytes that are not all UTF-8. */
function replaced(bytes) {
  const parts = [];
  let units = [];
  for (let at = 0; at < bytes.length; ) {
    const [code, length] = character(bytes, at);
    at += length;
    if (code < 0x10000) units.push(code);
    else units.push(0xd800 + ((code - 0x10000) >> 10), 0xdc00 + ((code - 0x10000) & 0x3ff));
    if (units.length > ARGUMENTS / 2) {
      parts.push(String.fromCharCode.apply(null, units));
      units = [];
    }
  }
  parts.push(String.fromCharCode.apply(null, units));
  return parts.join("");
}

/** The character at an offset, and how many bytes it has. */
function character(bytes, at) {
  const first = bytes[at];
  if (first < 0x80) return [first, 1];
  const length = first >= 0xf0 && first <= 0xf4 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || at + length > bytes.length) return [0xfffd, 1];
  let code = first & (0x7f >> length);
  for (let next = 1; next < length; next++) {
    if ((bytes[at + next] & 0xc0) !== 0x80) return [0xfffd, 1];
    code = (code << 6) | (bytes[at + next] & 0x3f);
  }
  const least = [0, 0, 0x80, 0x800, 0x10000][length];
  const surrogate = code >= 0xd800 && code <= 0xdfff;
  return code < least || code > 0x10ffff || surrogate ? [0xfffd, 1] : [code, length];
}
