;; Never comes to its first call.
(core module $guest
  (func $start (loop $more (br $more)))
  (func (export "attack"))
  (start $start))
