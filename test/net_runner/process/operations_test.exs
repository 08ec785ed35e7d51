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
    assert Operations.withdraw(operations, make_ref()) == {nil, operations}
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
  end

  test "an updated one keeps its place" do
    operations = parked([:stdin, :stdin])
    first = Operations.next(operations, [:stdin])
    operations = Operations.update(operations, first, {:begun, ["rest"], 2})
    assert %{id: 1, data: {:begun, ["rest"], 2}} = Operations.next(operations, [:stdin])
  end

  test "a write that was begun loses its caller, and stays" do
    monitor = make_ref()
    operations = Operations.park(Operations.new(), :stdin, from(), {:fresh, ["ab"]}, monitor)
    first = Operations.next(operations, [:stdin])
    begun = Operations.update(operations, first, {:begun, ["b"], 1})

    assert {%{monitor: ^monitor}, left} = Operations.drop_caller(begun, monitor)
    assert %{from: nil, monitor: nil, data: {:begun, ["b"], 1}} = Operations.next(left, [:stdin])
    assert {nil, ^left} = Operations.drop_caller(left, monitor)

    assert {%{data: {:fresh, ["ab"]}}, left} = Operations.drop_caller(operations, monitor)
    refute Operations.any?(left, [:stdin])
  end

  # Against a model: a list of {id, kind, monitor, data} in the order of the calls, from which the dead are taken, but not
  # a write that was begun.
  test "random steps do what they do to a list" do
    NetRunner.Random.rounds(200, fn _ ->
      Enum.reduce(1..60, {Operations.new(), []}, fn _, state ->
        {operations, model} = step(:rand.uniform(10), state)
        assert_same(operations, model)
        {operations, model}
      end)
    end)
  end

  @kinds [:a, :b, :c]

  defp assert_same(operations, model) do
    for kind <- @kinds do
      expected = for {_, ^kind, _, _} = entry <- model, do: entry
      {taken, without} = Operations.take_all(operations, kind)
      assert Enum.map(taken, &entry/1) == expected
      refute Operations.any?(without, [kind])
      assert Operations.any?(operations, [kind]) == (expected != [])
      assert entry(Operations.next(operations, [kind])) == List.first(expected)
    end

    for kinds <- [[:a, :b], [:c, :a], @kinds, []] do
      first = Enum.find(model, fn {_, kind, _, _} -> kind in kinds end)
      assert entry(Operations.next(operations, kinds)) == first
      assert Operations.any?(operations, kinds) == (first != nil)
    end
  end

  defp entry(nil), do: nil

  # Whoever has lost its caller has lost its monitor as well.
  defp entry(%{id: id, kind: kind, monitor: monitor, from: from, data: data}) do
    assert is_nil(from) == is_nil(monitor)
    {id, kind, monitor, data}
  end

  # The death of whoever has been answered is no news.
  defp assert_unknown(_operations, nil), do: :ok

  defp assert_unknown(operations, monitor) do
    assert Operations.drop_caller(operations, monitor) == {nil, operations}
  end

  defp step(n, {operations, model}) when n <= 4 do
    {kind, monitor, data} = {Enum.random(@kinds), make_ref(), {:fresh, :rand.uniform(100)}}
    parked = Operations.park(operations, kind, from(), data, monitor)
    {parked, model ++ [{parked.last_id, kind, monitor, data}]}
  end

  defp step(5, {operations, []}) do
    assert Operations.withdraw(operations, make_ref()) == {nil, operations}
    {operations, []}
  end

  defp step(5, {operations, model}) do
    case Enum.random(model) do
      # It has lost its caller.
      {_, _, nil, _} ->
        {operations, model}

      {_, _, monitor, _} = gone ->
        assert {withdrawn, operations} = Operations.withdraw(operations, monitor)
        assert entry(withdrawn) == gone
        assert Operations.withdraw(operations, monitor) == {nil, operations}
        assert_unknown(operations, monitor)
        {operations, model -- [gone]}
    end
  end

  defp step(n, {operations, model}) when n in [6, 7] do
    kinds = Enum.take_random(@kinds, 2)

    case Operations.next(operations, kinds) do
      nil ->
        {operations, model}

      operation when n == 6 ->
        finished = Operations.finish(operations, operation)
        assert_unknown(finished, operation.monitor)
        {finished, model -- [entry(operation)]}

      operation ->
        {id, kind, monitor, _} = entry(operation)
        data = Enum.random([{:begun, :rand.uniform(100), 0}, {:fresh, :rand.uniform(100)}])
        at = Enum.find_index(model, &match?({^id, _, _, _}, &1))

        {Operations.update(operations, operation, data),
         List.replace_at(model, at, {id, kind, monitor, data})}
    end
  end

  defp step(8, {operations, model}) do
    assert Operations.drop_caller(operations, make_ref()) == {nil, operations}
    {operations, model}
  end

  defp step(9, {operations, model}) do
    case Enum.filter(model, fn {_, _, monitor, _} -> monitor != nil end) do
      [] ->
        {operations, model}

      callers ->
        {id, kind, monitor, data} = gone = Enum.random(callers)
        assert {dropped, operations} = Operations.drop_caller(operations, monitor)
        assert entry(dropped) == gone
        assert Operations.drop_caller(operations, monitor) == {nil, operations}
        at = Enum.find_index(model, &(&1 == gone))

        if match?({:begun, _, _}, data),
          do: {operations, List.replace_at(model, at, {id, kind, nil, data})},
          else: {operations, List.delete_at(model, at)}
    end
  end

  defp step(10, {operations, model}) do
    kind = if :rand.uniform(4) == 1, do: Enum.random(@kinds), else: :none
    {taken, operations} = Operations.take_all(operations, kind)
    left = Enum.reject(model, fn {_, other, _, _} -> other == kind end)
    assert Enum.map(taken, &entry/1) == model -- left
    for %{monitor: monitor} <- taken, do: assert_unknown(operations, monitor)
    {operations, left}
  end
end
