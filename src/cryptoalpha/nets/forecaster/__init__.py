"""The cross-asset forecaster: prices, chain and text of a book of assets in, calibrated opinions per asset and horizon out."""
