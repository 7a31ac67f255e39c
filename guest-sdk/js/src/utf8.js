// Texts and bytes: not every engine for WebAssembly has a TextEncoder.

/** The UTF-8 of a text. Half of a surrogate pair, which is no character, becomes U+FFFD. */
export function encode(text) {
  const bytes = new Uint8Array(3 * text.length);
  let used = 0;
  for (const character of text) {
    let code = character.codePointAt(0);
    if (code >= 0xd800 && code <= 0xdfff) code = 0xfffd;
    if (code < 0x80) {
      bytes[used++] = code;
    } else if (code < 0x800) {
      bytes[used++] = 0xc0 | (code >> 6);
      bytes[used++] = 0x80 | (code & 0x3f);
    } else if (code < 0x10000) {
      bytes[used++] = 0xe0 | (code >> 12);
      bytes[used++] = 0x80 | ((code >> 6) & 0x3f);
      bytes[used++] = 0x80 | (code & 0x3f);
    } else {
      bytes[used++] = 0xf0 | (code >> 18);
      bytes[used++] = 0x80 | ((code >> 12) & 0x3f);
      bytes[used++] = 0x80 | ((code >> 6) & 0x3f);
      bytes[used++] = 0x80 | (code & 0x3f);
    }
  }
  return bytes.slice(0, used);
}

/** The text of UTF-8. Bytes that are none become U+FFFD. */
export function decode(bytes) {
  const parts = [];
  let units = [];
  for (let at = 0; at < bytes.length; ) {
    const [code, length] = character(bytes, at);
    at += length;
    if (code < 0x10000) units.push(code);
    else units.push(0xd800 + ((code - 0x10000) >> 10), 0xdc00 + ((code - 0x10000) & 0x3ff));
    // Arguments of a call have their limit.
    if (units.length > 4096) {
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
