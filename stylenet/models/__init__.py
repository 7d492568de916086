"""The networks: frozen VGG encoder, mirrored decoder, the StyleNet of both, compact network."""
