"""The provider for programs in other languages, as the engine starts it from a folder with its source."""

from .provider import main

main()
