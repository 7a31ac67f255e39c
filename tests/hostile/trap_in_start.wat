;; Traps before its first call.
(core module $guest
  (func $start unreachable)
  (func (export "attack"))
  (start $start))
