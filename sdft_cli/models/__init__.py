"""Language models: loaded and saved, chat templates, packing, views, digests."""
