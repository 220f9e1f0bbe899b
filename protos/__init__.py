"""The wire contract: message definitions and the code generated from them (`make protos`)."""
