;; Opens a hundred thousand writers and finishes none; more than four were too many.
(core module $guest
  (import "calls" "leak-writer" (func $leak (result i32)))
  (func (export "attack") (local $i i32) (local $made i32)
    (loop $more
      (local.set $made (i32.add (local.get $made) (i32.eqz (call $leak))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $i) (i32.const 100000))))
    (if (i32.ne (local.get $made) (i32.const 4)) (then unreachable))))
