;; Answers with all of its memory.
(component
  (core module $m
    (memory (export "memory") 800)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func (export "run") (param i32 i32) (result i32)
      (i32.store (i32.const 4) (i32.const 0))
      (i32.store (i32.const 8) (i32.const 50000000))
      (i32.const 0)))
  (core instance $i (instantiate $m))
  (func (export "run") (param "args" (list string)) (result (result string (error string)))
    (canon lift (core func $i "run") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))
