;; Claims that its state is 4 GiB long, in a memory of 256 KiB.
(core module $guest
  (import "calls" "save" (func $save (param i32 i32) (result i32)))
  (func (export "attack") (drop (call $save (i32.const 0) (i32.const -1)))))
