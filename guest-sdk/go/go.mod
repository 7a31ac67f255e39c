module persist

go 1.25
