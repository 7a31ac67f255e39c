;; Grows a table as far as it may: a hundred thousand elements, and not one more.
(core module $guest
  (table $t 0 funcref)
  (func (export "attack")
    (loop $grow
      (br_if $grow (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))
    (if (i32.gt_u (table.size $t) (i32.const 100000)) (then unreachable))))
