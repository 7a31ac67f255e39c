;; Makes a million resources of its own, each of which the host remembers.
(core module $guest
  (import "store" "own-new" (func $new (param i32) (result i32)))
  (func (export "attack") (local $i i32)
    (loop $more
      (drop (call $new (local.get $i)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $i) (i32.const 1000000))))))
