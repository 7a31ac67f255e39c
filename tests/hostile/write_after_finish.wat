;; Writes to a writer that it has finished.
(core module $guest
  (import "calls" "open" (func $open (result i32)))
  (import "calls" "write" (func $write (param i32 i32 i32) (result i32)))
  (import "calls" "finish" (func $finish (param i32) (result i32)))
  (func (export "attack") (local $writer i32)
    (local.set $writer (call $open))
    (drop (call $finish (local.get $writer)))
    (drop (call $write (local.get $writer) (i32.const 16) (i32.const 6)))))
