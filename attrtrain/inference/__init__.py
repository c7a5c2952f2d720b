"""A trained model put to use: photographs and boxes → scores and features."""
