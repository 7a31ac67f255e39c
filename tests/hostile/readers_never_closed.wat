;; Opens a hundred thousand readers and closes none; more than sixteen were too many.
(core module $guest
  (import "calls" "save" (func $save (param i32 i32) (result i32)))
  (import "calls" "leak-reader" (func $leak (result i32)))
  (func (export "attack") (local $i i32) (local $made i32)
    (drop (call $save (i32.const 16) (i32.const 6)))
    (loop $more
      (local.set $made (i32.add (local.get $made) (i32.eqz (call $leak))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $i) (i32.const 100000))))
    (if (i32.ne (local.get $made) (i32.const 16)) (then unreachable))))
