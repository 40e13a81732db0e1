"""What the OpenAPI document says of each dialect; requests are parsed by hand, these models only describe."""
