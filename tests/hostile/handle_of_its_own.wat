;; Passes a resource of its own, whose representation is 0, as a writer.
(core module $guest
  (import "calls" "write" (func $write (param i32 i32 i32) (result i32)))
  (import "store" "own-new" (func $new (param i32) (result i32)))
  (func (export "attack")
    (drop (call $write (call $new (i32.const 0)) (i32.const 16) (i32.const 6)))))
