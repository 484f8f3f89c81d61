using Cbd.Host.Threads;
using Xunit;

namespace Cbd.Tests.Host;

public sealed class The_verbs_that_are_under_way
{
    private readonly RunningVerbs _verbs = new();

    [Fact]
    public void Are_waited_for_while_no_other_can_begin()
    {
        IDisposable first = _verbs.TryBegin()!;
        IDisposable second = _verbs.TryBegin()!;
        Assert.Equal(2, _verbs.Count);
        Assert.True(_verbs.TryBeginEnd());
        Assert.True(_verbs.IsEnding);
        Task end = Task.Run(_verbs.AwaitEnd, TestContext.Current.CancellationToken);
        Assert.Null(_verbs.TryBegin());
        // A verb that is ended twice counts once.
        first.Dispose();
        first.Dispose();
        Assert.Equal(1, _verbs.Count);
        Assert.False(end.IsCompleted);
        second.Dispose();
        Eventually.True(() => end.IsCompleted);
    }

    [Fact]
    public void Are_ended_by_one_alone()
    {
        Assert.False(_verbs.IsEnding);
        Assert.True(_verbs.TryBeginEnd());
        Assert.False(_verbs.TryBeginEnd());
        Assert.Null(_verbs.TryBegin());
    }
}
