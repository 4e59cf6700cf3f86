"""The cross-asset forecaster: prices, chain and text of a book of assets in, calibrated opinions per asset and horizon out.

    net = Forecaster(forecaster_sizes(config.nets), config.nets.heads, horizons=3, price=50, chain=30, text=384, pair=11, seed=0)
    forecast = net(inputs)                                        # every bar of every block, each from its past alone
    forecast_loss(forecast, targets, sideways=0.43).backward()

`values` is what goes in and comes out, `model` the network, `losses` its teachers, `calibration` and `correlation` what is done with its
answers.
"""

from cryptoalpha.nets.forecaster.losses import forecast_loss
from cryptoalpha.nets.forecaster.model import Forecaster
from cryptoalpha.nets.forecaster.values import Forecast, ForecastInputs, ForecastTargets

__all__ = ["Forecast", "ForecastInputs", "ForecastTargets", "Forecaster", "forecast_loss"]
