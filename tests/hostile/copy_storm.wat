;; Grows as far as it may, and copies all of it about for ever.
(core module $guest
  (import "libc" "memory" (memory 4))
  (func (export "attack") (local $half i32)
    (loop $grow (br_if $grow (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
    (local.set $half (i32.mul (memory.size) (i32.const 32768)))
    (loop $more
      (memory.copy (local.get $half) (i32.const 0) (local.get $half))
      (br $more))))
