// Tests of an agent without WebAssembly. `index.d.ts` documents what is here.
import * as store from "persist:snapshot/store@0.1.0";
import { PersistError } from "../error.js";
import { forgetLimits } from "../store.js";

export function reset() {
  store.reset();
  forgetLimits();
}

export function setLimits(changes) {
  store.setLimits(changes);
  forgetLimits();
}

export function failNext(error) {
  store.failNext(error instanceof PersistError ? error : new PersistError(error));
}
