"""Everything stands in setup.cfg, which pip and ament_cmake_python both read."""

from setuptools import setup

setup()
