// Where Node.js finds the imports of a component.
const MODULES = {
  "persist:snapshot/store@0.1.0": "./store.js",
  "wasi:random/random@0.2.0": "./random.js",
  "wasi:cli/stderr@0.2.0": "./stderr.js",
};

export function resolve(specifier, context, next) {
  const file = MODULES[specifier];
  return file ? { url: new URL(file, import.meta.url).href, shortCircuit: true } : next(specifier, context);
}
