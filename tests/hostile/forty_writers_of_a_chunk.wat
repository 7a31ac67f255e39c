;; Opens, fills and drops writers, over and over: no more is held than by one.
(core module $guest
  (import "calls" "open" (func $open (result i32)))
  (import "calls" "write" (func $write (param i32 i32 i32) (result i32)))
  (import "store" "drop-writer" (func $drop (param i32)))
  (func (export "attack") (local $i i32) (local $writer i32)
    (loop $more
      (local.set $writer (call $open))
      (if (call $write (local.get $writer) (i32.const 0) (i32.const 200000)) (then unreachable))
      (call $drop (local.get $writer))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $i) (i32.const 40))))))
