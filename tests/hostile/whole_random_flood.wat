;; Wants a terabyte of random numbers.
(component
  (import "wasi:random/random@0.2.0" (instance $random
    (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $libc (instantiate $libc))
  (core func $random (canon lower (func $random "get-random-bytes")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core module $m
    (import "wasi" "random" (func $random (param i64 i32)))
    (func (export "run") (param i32 i32) (result i32)
      (call $random (i64.const 0x10000000000) (i32.const 64))
      i32.const 0))
  (core instance $i (instantiate $m (with "wasi" (instance (export "random" (func $random))))))
  (func (export "run") (param "args" (list string)) (result (result string (error string)))
    (canon lift (core func $i "run") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc")))))
