"""How good the boxes are: COCO's metric and the confusion matrix."""
