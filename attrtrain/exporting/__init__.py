"""A trained model as one file that runs without attrtrain: ONNX, ONNX in 8 bits, or a torch.export program."""
