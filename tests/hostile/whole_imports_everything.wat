;; Imports what it would like to have.
(component
  (import "wasi:http/outgoing-handler@0.2.0" (instance (export "handle" (func))))
  (import "acme:disk/files@1.0.0" (instance (export "open" (func (param "path" string))))))
