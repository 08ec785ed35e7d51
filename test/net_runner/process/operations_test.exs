defmodule NetRunner.Process.OperationsTest do
  use ExUnit.Case, async: true

  alias NetRunner.Process.Operations

  defp from, do: {self(), make_ref()}

  defp parked(kinds) do
    Enum.reduce(kinds, Operations.new(), &Operations.park(&2, &1, from(), nil, make_ref()))
  end

  test "nobody waits in a new one" do
    operations = Operations.new()
    assert Operations.next(operations, [:stdout, :any]) == nil
    refute Operations.any?(operations, [:stdout])
    assert Operations.take_all(operations, :stdout) == {[], operations}
    assert Operations.drop(operations, 1) == {nil, operations}
    assert Operations.drop_caller(operations, make_ref()) == {nil, operations}
  end

  test "of several kinds, the one that has waited longest is next, and stays until it is finished" do
    operations = parked([:any, :stdout, :stderr, :stdout])
    assert %{kind: :any} = first = Operations.next(operations, [:stdout, :any])
    assert %{kind: :stdout} = second = Operations.next(operations, [:stdout])
    assert Operations.next(operations, [:stdout, :any]) == first

    operations = Operations.finish(operations, first)
    refute Operations.any?(operations, [:any])
    assert Operations.next(operations, [:any, :stdout]) == second
    assert %{kind: :stdout, id: 4} = Operations.last(operations, :stdout)
  end

  test "an updated one keeps its place" do
    operations = parked([:stdin, :stdin])
    first = Operations.next(operations, [:stdin])
    operations = Operations.update(operations, first, {:begun, ["rest"]})
    assert %{id: 1, data: {:begun, ["rest"]}} = Operations.next(operations, [:stdin])
  end

  test "a write that was begun loses its caller, and stays" do
    monitor = make_ref()
    operations = Operations.park(Operations.new(), :stdin, from(), {:fresh, ["ab"]}, monitor)
    begun = Operations.update(operations, Operations.next(operations, [:stdin]), {:begun, ["b"]})

    assert {%{monitor: ^monitor}, left} = Operations.drop_caller(begun, monitor)
    assert %{from: nil, monitor: nil, data: {:begun, ["b"]}} = Operations.next(left, [:stdin])
    assert {nil, ^left} = Operations.drop_caller(left, monitor)

    assert {%{data: {:fresh, ["ab"]}}, left} = Operations.drop_caller(operations, monitor)
    refute Operations.any?(left, [:stdin])
  end

  # Against a model: a list in the order of the calls.
  test "random steps do what they do to a list" do
    for round <- 1..200 do
      {operations, model} =
        Enum.reduce(1..60, {Operations.new(), []}, fn _, state -> step(state) end)

      for kind <- [:a, :b, :c] do
        {taken, _} = Operations.take_all(operations, kind)
        assert Enum.map(taken, & &1.id) == for({id, ^kind, _} <- model, do: id), "round #{round}"
      end
    end
  end

  defp step({operations, model}) do
    kind = Enum.random([:a, :b, :c])
    kinds = Enum.take_random([:a, :b, :c], 2)

    case :rand.uniform(7) do
      n when n <= 3 ->
        monitor = make_ref()
        operations = Operations.park(operations, kind, from(), nil, monitor)
        {operations, model ++ [{Operations.last(operations, kind).id, kind, monitor}]}

      4 ->
        expected = Enum.find(model, fn {_, kind, _} -> kind in kinds end)
        operation = Operations.next(operations, kinds)
        assert (operation && operation.id) == (expected && elem(expected, 0))

        if operation,
          do: {Operations.finish(operations, operation), model -- [expected]},
          else: {operations, model}

      5 ->
        {id, _, _} = gone = Enum.random(model ++ [{0, :none, nil}])
        {dropped, operations} = Operations.drop(operations, id)
        assert (dropped && dropped.id) == if(id == 0, do: nil, else: id)
        {operations, model -- [gone]}

      6 ->
        {id, _, monitor} = gone = Enum.random(model ++ [{0, :none, make_ref()}])
        {dropped, operations} = Operations.drop_caller(operations, monitor)
        assert (dropped && dropped.id) == if(id == 0, do: nil, else: id)
        {operations, model -- [gone]}

      7 ->
        assert Operations.any?(operations, kinds) ==
                 Enum.any?(model, fn {_, kind, _} -> kind in kinds end)

        {operations, model}
    end
  end
end
