module scenarios

go 1.25

require example.com/persist/guest-sdk/go v0.0.0

replace example.com/persist/guest-sdk/go => ../../../guest-sdk/go
