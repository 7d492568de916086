"""The networks: frozen VGG encoder, mirrored decoder, and the StyleNet made of both."""
