;; A list of 2^28 labels, which would be 12 GiB in the host.
(core module $guest
  (import "calls" "save-labelled" (func $save (param i32 i32) (result i32)))
  (func (export "attack") (drop (call $save (i32.const 0) (i32.const 0x10000000)))))
