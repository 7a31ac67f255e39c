;; Writes to a handle that nobody gave it.
(core module $guest
  (import "calls" "write" (func $write (param i32 i32 i32) (result i32)))
  (func (export "attack") (drop (call $write (i32.const 77) (i32.const 16) (i32.const 6)))))
