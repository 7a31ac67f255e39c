;; Traps with a writer that has failed, after a chunk of 2 MiB was refused.
(core module $guest
  (import "libc" "memory" (memory 4))
  (import "calls" "open" (func $open (result i32)))
  (import "calls" "write" (func $write (param i32 i32 i32) (result i32)))
  (func (export "attack") (local $writer i32)
    (drop (memory.grow (i32.const 64)))
    (local.set $writer (call $open))
    (if (i32.eqz (call $write (local.get $writer) (i32.const 0) (i32.const 0x200000))) (then (return)))
    (if (i32.eqz (call $write (local.get $writer) (i32.const 0) (i32.const 6))) (then (return)))
    unreachable))
