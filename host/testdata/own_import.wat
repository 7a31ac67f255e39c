;; Answers with what a function of the host's own, outside of Persist and WASI, returns.
(component
  (import "game:world/players@1.0.0" (instance $players
    (export "current" (func (result string)))))

  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $libc (instantiate $libc))
  (core func $current (canon lower (func $players "current")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))

  (core module $main
    (import "libc" "memory" (memory 1))
    (import "game" "current" (func $current (param i32)))
    ;; Writes the string into the case `ok` of the result, whose tag is 0 already.
    (func (export "run") (param i32 i32) (result i32)
      (call $current (i32.const 516))
      (i32.const 512)))
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "game" (instance (export "current" (func $current))))))
  (func (export "run") (param "args" (list string)) (result (result string (error string)))
    (canon lift (core func $main "run") (memory (core memory $libc "memory"))
      (realloc (core func $libc "realloc")))))
