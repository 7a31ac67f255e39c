// Has Node.js take the store in memory for the host: `node --import persist-guest/testing/register --test`.
import { register } from "node:module";

register("./hooks.js", import.meta.url);
