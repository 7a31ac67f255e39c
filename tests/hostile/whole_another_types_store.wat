;; Imports `save` of the store with other types.
(component
  (import "persist:snapshot/store@0.1.0" (instance
    (export "save" (func (param "path" string) (param "state" (list u64)))))))
