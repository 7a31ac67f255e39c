module chat_memory

go 1.25

require persist v0.0.0

replace persist => ../../guest-sdk/go
