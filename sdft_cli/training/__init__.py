"""What a stage is made of: trainer, batches, teacher, optimizer, guards, checkpoints, memory."""
