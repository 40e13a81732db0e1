"""What tests of several folders share: tiny models, fakes, real servers, numpy references."""
