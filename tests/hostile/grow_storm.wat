;; Asks for more memory a hundred thousand times, whatever it is told.
(core module $guest
  (import "libc" "memory" (memory 4))
  (func (export "attack") (local $i i32)
    (loop $more
      (drop (memory.grow (i32.const 1024)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $i) (i32.const 100000))))))
