"""The only room that samples: scheduler, key/value cache, sampling, log-probabilities. It knows nothing of rewards."""
