;; A WASI 0.1 reactor, as C's linker makes one: prints "hello" and answers "done". Its world is in a custom section, which
;; the test adds.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (global $free (mut i32) (i32.const 4096))
  (data (i32.const 16) "hello\n")
  ;; one piece: where and how long
  (data (i32.const 32) "\10\00\00\00\06\00\00\00")
  (data (i32.const 48) "done")
  (func (export "_initialize"))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $free (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get 3)))
    (block $fits
      (br_if $fits (i32.le_u (global.get $free) (i32.mul (memory.size) (i32.const 65536))))
      (drop (memory.grow (i32.const 4)))))
  (func (export "run") (param i32 i32) (result i32)
    (drop (call $write (i32.const 1) (i32.const 32) (i32.const 1) (i32.const 64)))
    ;; ok("done")
    (i32.store (i32.const 128) (i32.const 0))
    (i32.store (i32.const 132) (i32.const 48))
    (i32.store (i32.const 136) (i32.const 4))
    (i32.const 128)))
