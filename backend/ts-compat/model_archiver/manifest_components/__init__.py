"""What a manifest is made of, under the names that TorchServe has for it."""
