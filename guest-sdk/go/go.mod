module example.com/persist/guest-sdk/go

go 1.25
