;; A name that is not UTF-8.
(core module $guest
  (import "libc" "memory" (memory 4))
  (import "calls" "save-as" (func $save (param i32 i32) (result i32)))
  (data (i32.const 2048) "\ff\fe\c0\80")
  (func (export "attack") (drop (call $save (i32.const 2048) (i32.const 4)))))
