;; Wants 4 GiB before it begins.
(core module $guest
  (memory 65536)
  (func (export "attack")))
