"""10a. Why a run is as it is: evidence in, one diagnosis out. Pure; who reads the evidence stands above."""
