defmodule NetRunner.DaemonTest do
  use ExUnit.Case, async: false
  doctest NetRunner.Daemon
end
