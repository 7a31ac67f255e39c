;; Reads at the last byte that a number can name, and asks for all that follows.
(core module $guest
  (import "libc" "memory" (memory 4))
  (import "calls" "save" (func $save (param i32 i32) (result i32)))
  (import "calls" "reader" (func $reader (result i32)))
  (import "store" "read" (func $read (param i32 i64 i32 i32)))
  (func (export "attack") (local $reader i32)
    (drop (call $save (i32.const 16) (i32.const 6)))
    (local.set $reader (call $reader))
    (call $read (local.get $reader) (i64.const -1) (i32.const -1) (i32.const 2048))
    ;; ok, and nothing
    (if (i32.load8_u (i32.const 2048)) (then unreachable))
    (if (i32.load (i32.const 2060)) (then unreachable))
    (call $read (local.get $reader) (i64.const 5) (i32.const -1) (i32.const 2048))
    (if (i32.ne (i32.load (i32.const 2060)) (i32.const 1)) (then unreachable))))
